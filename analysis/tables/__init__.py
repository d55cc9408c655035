"""Tables, and the words for what they say."""
