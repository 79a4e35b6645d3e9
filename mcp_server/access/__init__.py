"""Who may use the HTTP doors, under which names they are reached, and how much one caller may ask for at once.

addresses   the Host and Origin headers that are taken
tokens      bearers of a token from a file
issuer      an authorization server: its metadata and its keys
oauth       bearers of access tokens that it issued
guard       stands before every door: asks who it is, and notes it
admission   how many requests there may be, how large, and none once the server stops
refusals    what those get that may not
"""
