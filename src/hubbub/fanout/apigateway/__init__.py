"""The fan-out and directory of the AWS home: who listens is in a table, and frames go out through `@connections`.

Room jobs are handed to a broadcaster that runs on its own (`Transport`); what concerns one user or one connection is
posted where it arises.
"""
