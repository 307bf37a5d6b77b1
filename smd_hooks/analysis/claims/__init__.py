"""What the papers claim, each claim a check over records."""
