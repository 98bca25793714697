"""Runs beside each other: two runs, the stages of an upgrade, a folder of reports."""
