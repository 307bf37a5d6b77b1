"""The result table: one row per run, grouped, compared, written."""
