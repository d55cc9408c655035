"""From what trials left behind to two tidy frames."""
