"""`hubbub bench`: a load test that a team runs against its own deployment, in any home.

One process coordinates (`run`), and processes of `worker` hold the connections and count what comes.
"""
