#!/usr/bin/env bash
# Makes deploy/secrets/ (random, for this machine) and deploy/.env with the Airflow users. Never overwrites a secret.
# usage: bash deploy/make-secrets.sh NAME...     the names of the people in the trust root
set -euo pipefail
umask 077
cd "$(dirname "$0")"
[ "$#" -gt 0 ] || { echo "usage: bash deploy/make-secrets.sh NAME...  (the people of the trust root)" >&2; exit 2; }
mkdir -p secrets
random() { head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n'; }  # 32 bytes, also what a Fernet key is
for name in postgres_password fernet_key api_secret_key jwt_secret; do
  [ -e "secrets/$name" ] || random > "secrets/$name"
done
[ -e secrets/sql_alchemy_conn ] ||
  printf 'postgresql+psycopg2://airflow:%s@postgres:5432/airflow' "$(cat secrets/postgres_password)" > secrets/sql_alchemy_conn
users="" passwords=""
for name in "$@"; do
  [[ "$name" =~ ^[A-Za-z0-9_.@-]+$ ]] || { echo "a name may hold letters, digits and _.@-" >&2; exit 2; }
  users+="${users:+,}$name:user"
  passwords+="${passwords:+, }\"$name\": \"$(random)\""
done
[ -e secrets/airflow_passwords ] || printf '{%s}\n' "$passwords" > secrets/airflow_passwords
[ -e .env ] || printf 'PRIVET_AIRFLOW_USERS=%s\nPRIVET_LANDING=./landing\n' "$users" > .env
# The services run as user 10001 and read the files through compose; the folder itself stays ours alone.
chmod 0700 secrets
chmod 0644 secrets/*
echo "made deploy/secrets and deploy/.env; set PRIVET_LANDING in deploy/.env to the folder of the raw logs"
