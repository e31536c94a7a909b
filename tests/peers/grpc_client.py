"""A gRPC client that calls the same method for ever and prints who answered, or what went wrong.

usage: grpc_client.py TARGET    (for xds:///APP, GRPC_XDS_BOOTSTRAP names the bootstrap file)

Each call waits until the channel is ready, so a call fails only when a chosen server fails it.
"""

import sys
import time

import grpc

METHOD = "/weir.test.Names/Who"
# Between two calls: enough that a story sees many, few enough not to load the machine.
PERIOD_S = 0.01
TIMEOUT_S = 30


def main(target):
    with grpc.insecure_channel(target) as channel:
        who = channel.unary_unary(METHOD)
        while True:
            try:
                name = who(b"", timeout=TIMEOUT_S, wait_for_ready=True).decode()
                print(f"answered by {name}", flush=True)
            except grpc.RpcError as error:
                print(f"failed: {error.code().name}: {error.details()}", flush=True)
            time.sleep(PERIOD_S)


if __name__ == "__main__":
    main(sys.argv[1])
