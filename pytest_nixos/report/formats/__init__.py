"""The formats of reports: one writer a file, and what the HTML page reads."""
