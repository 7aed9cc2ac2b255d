"""AWS without an SDK: signed calls in little CPU time and with little to import, and one DynamoDB table."""
