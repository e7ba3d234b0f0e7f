"""Differentially private training, and the audits and probes that try to refute it. Imports `privacy`, never `pipeline`."""
