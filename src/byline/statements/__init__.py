"""Monthly statements, frozen for ever, and the payouts that cite them.

A month is closed once, at one place of the journal for all accounts (`closing`). Each payee's
statement of it is then frozen (`freezing`): canonical JSON is the record, and the CSV and the PDF
are made from that JSON alone. A payout pays whole cents of what a frozen statement says and the
ledger still has (`payouts`).
"""
