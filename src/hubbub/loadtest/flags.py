"""The flags of `hubbub bench`, and what to say of each. By itself, since the command line reads it at every call."""

from __future__ import annotations

from hubbub.flags import Flag

LOAD, TROUBLE, ACCESS = "The load", "What is hard on a server", "Who connects"
MADE, SAYS = "How it is made", "What is told"


FLAGS = (
    Flag("connections", "Connections, each with a user of its own as far as there are tokens.", "NUMBER", LOAD, "100"),
    Flag("rooms", "Rooms to make, with equally many listeners.", "NUMBER", LOAD, "1"),
    Flag("room", "Names of rooms that are there, instead of new ones; several with commas between.", "NAME", LOAD),
    Flag("rooms_each", "Rooms that a connection is in.", "NUMBER", LOAD, "1"),
    Flag("rate", "Messages a second, to all rooms together.", "NUMBER", LOAD, "10"),
    Flag("duration", "How long to send: 30, 30s, 5m, 1h.", "TIME", LOAD, "30s"),
    Flag("size", "Bytes of a message's text.", "NUMBER", LOAD, "200"),
    Flag(
        "senders", "Connections that send. By default all; some, where they must become members first.", "NUMBER", LOAD
    ),
    Flag("ramp", "Connections to open a second.", "NUMBER", LOAD, "500"),
    Flag("no_deflate", "Do not offer permessage-deflate; browsers do, and so it does.", None, LOAD),
    Flag("history", "Pages of history to read a second.", "NUMBER", TROUBLE, "0"),
    Flag("storm", "Cut connections in the middle, all at once; they come back as fast as they can.", None, TROUBLE),
    Flag("storm_share", "How many of them, in percent.", "PERCENT", TROUBLE, "100"),
    Flag("slow", "Connections that stop reading, among the others.", "NUMBER", TROUBLE, "0"),
    Flag(
        "secret",
        "Make tokens (HS256) with this secret of the server. By default that of the settings, or of `serve --dev`.",
        "TEXT",
        ACCESS,
    ),
    Flag("token_url", 'Get each token there: plain, or as {"token": …}. {user} stands for a name.', "URL", ACCESS),
    Flag("token_header", "A header to send there.", "NAME: VALUE", ACCESS),
    Flag("tokens", "A file of tokens, one a line; connections take them in turn.", "FILE", ACCESS),
    Flag("ca", "Certificates to trust, in PEM form, beside the system's.", "FILE", ACCESS),
    Flag("processes", "Processes that make the load. By default as few as can hold the connections.", "NUMBER", MADE),
    Flag(
        "source_addresses",
        "Addresses of 127.0.0.0/8 to connect from. By default one for each 20,000 connections.",
        "NUMBER",
        MADE,
    ),
    Flag("settle", "How long to wait for what is still to come, while nothing comes.", "TIME", MADE, "10s"),
    Flag("pid", "The server's processes on this machine. By default whoever listens on the port.", "PID", SAYS),
    Flag("max_ack", "Fail when the 99th percentile of acknowledgements is above, in milliseconds.", "MS", SAYS),
    Flag("max_delivery", "Fail when the 99th percentile of deliveries is above, in milliseconds.", "MS", SAYS),
    Flag(
        "allow",
        "What is told but does not fail it: doubled, disordered, refused; several with commas between.",
        "WORD",
        SAYS,
    ),
    Flag("json", "Write the result as JSON there; - for standard output, instead of the tables.", "FILE", SAYS),
    Flag("html", "Write a report with plots there, as one page that needs no network.", "FILE", SAYS),
)
