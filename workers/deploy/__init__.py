"""From a candidate to the file that a user deploys, and the gate it must pass."""
