"""What becomes of a run: findings from reports, the ledger, report files, the terminal summary,
and what workers send home.
"""
