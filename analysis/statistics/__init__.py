"""Numbers and facts about the cells of a sweep."""
