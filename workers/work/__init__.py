"""What jobs do, one file per kind with its `do(assignment)`. Here the database is known; below it is not."""
