"""The stages from raw logs to a verified release, and everything that runs, stores, signs and checks them.

Imports `training` and `privacy`; Airflow's DAGs import it. `python -m pipeline.verify` needs none of the heavy libraries.
"""
