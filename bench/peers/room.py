"""A room on picows and uvloop: a message is sent to every connection. Listens on HOST PORT."""
import asyncio
import sys

import uvloop
from picows import WSListener, WSMsgType, ws_create_server

members = set()


class Member(WSListener):
    def on_ws_connected(self, transport):
        members.add(transport)

    def on_ws_disconnected(self, transport):
        members.discard(transport)

    def on_ws_frame(self, transport, frame):
        if frame.msg_type == WSMsgType.TEXT:
            text = frame.get_payload_as_bytes()
            for member in list(members):
                member.send(WSMsgType.TEXT, text)
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()


async def main():
    host, port = sys.argv[1], int(sys.argv[2])
    server = await ws_create_server(lambda request: Member(), host, port, backlog=4096)
    await server.serve_forever()


uvloop.run(main())
