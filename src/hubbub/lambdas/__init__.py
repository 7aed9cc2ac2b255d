"""The chat as AWS Lambda functions: handlers for every route, the broadcaster, the sweeper and the HTTP API."""
