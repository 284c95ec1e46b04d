"""What a run did and what it cost, for people, for programs and for Prefect."""
