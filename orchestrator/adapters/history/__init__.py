"""The history of finished runs: SQLite by default, PostgreSQL by URL."""
