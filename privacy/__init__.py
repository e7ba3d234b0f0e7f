"""What protects people: policy, sealing, detection, accounting, ledger, journal, signatures and gates.

Imports nothing of `training` or `pipeline`; each module stands alone, and composition happens in `pipeline`.
"""
