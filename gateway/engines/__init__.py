"""The engines behind one gateway: which of them answers, and which adapters each has loaded.

breaker       when an engine is left alone for a while
engine        one engine as this gateway knows it: work in flight, adapters, their state
choosing      which of several engines gets a request; pure
places        the cap on adapters in flight, and who waits for a place
shared_places the same cap for all gateways: leases in the ledger's server
leases        the loop that gets, renews and gives back this gateway's leases
uses          what was asked for in the last hour
canary        does a loaded adapter change the engine's answers?
keeping       the loop that holds one engine's adapters against the release
engines       what the rest of the gateway talks to
metrics       what Prometheus sees of all this
"""
