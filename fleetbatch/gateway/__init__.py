"""The door for cars and owners: HTTP in, ledger and store behind; the ledger decides."""
