"""What a chat costs in each home, and which quota breaks first: `hubbub cost`.

`scenario` is the chat, `traffic` what it makes, `bills` the dollars, `capacity` the quotas, `report` what one reads;
`prices.toml` has what is AWS's, `work.toml` what is ours.
"""
