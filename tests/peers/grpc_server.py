"""A gRPC server that answers with its own name: one method, no protobuf, raw bytes.

usage: grpc_server.py PORT NAME
"""

import sys
from concurrent import futures

import grpc

METHOD = "Who"
SERVICE = "weir.test.Names"


def main(port, name):
    answer = grpc.unary_unary_rpc_method_handler(lambda request, context: name.encode())
    handler = grpc.method_handlers_generic_handler(SERVICE, {METHOD: answer})
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4), handlers=[handler])
    if server.add_insecure_port(f"127.0.0.1:{port}") == 0:
        sys.exit(f"port {port} is taken")
    server.start()
    print("serving", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
