"""The laptop: starts and stops PostgreSQL, gateways, dispatchers, auditors, cars and Airflow."""
