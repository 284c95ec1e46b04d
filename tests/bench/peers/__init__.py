"""Others that do this job: their drivers run in environments of their own, which import nothing of ours."""
