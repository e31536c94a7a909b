"""Calls Who of grpc_server.py so many times, over one channel, and writes a line for each: the answer, or the status.

usage: grpc_status.py HOST:PORT TIMES
"""

import sys

import grpc


def main(target, times):
    with grpc.insecure_channel(target) as channel:
        who = channel.unary_unary("/weir.test.Names/Who")
        for _ in range(times):
            try:
                print(who(b"", timeout=60, wait_for_ready=True).decode(), flush=True)
            except grpc.RpcError as error:
                print(error.code().name, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
