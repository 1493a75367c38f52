"""POST /v1/responses, translated to a chat and back.

The engine has a route of this name, which gives no token ids: a stream that is cut could then not
be charged for what it delivered, and no answer could be attributed.

    asking        the body as a chat
    conversation  its input as messages
    replies       a chat's answer as a response object
    events        a chat's stream as the events of a response
    routes        the route, and what a client gets
"""
