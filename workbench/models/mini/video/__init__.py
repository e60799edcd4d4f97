"""The scripts that made ``mini-video``: a Wan model of Microsoft's animated Fluent emoji, trained from scratch."""
