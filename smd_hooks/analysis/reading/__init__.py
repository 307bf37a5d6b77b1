"""Finds runs below folders and reads what lies there, executing nothing."""
