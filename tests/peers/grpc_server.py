"""A gRPC server with one method of each kind: no protobuf, raw bytes.

usage: grpc_server.py HOST:PORT NAME [sick]

Who answers the server's name; Count streams as many numbers as asked for; Total adds up the lengths of what is
streamed to it; Echo sends back each message as it comes; Fail fails with a status, a message and trailers. Its health
service says SERVING, or NOT_SERVING if it is sick.
"""

import sys
from concurrent import futures

import grpc

SERVICE = "weir.test.Names"
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def count(request, context):
    for number in range(int(request)):
        yield str(number).encode()


def total(requests, context):
    return str(sum(len(request) for request in requests)).encode()


def fail(request, context):
    context.set_trailing_metadata((("reason", "asked-for"),))
    context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: 漏")


def health(sick):
    """HealthCheckResponse { status }, field 1."""
    answer = b"\x08\x02" if sick else b"\x08\x01"
    check = grpc.unary_unary_rpc_method_handler(lambda request, context: answer)
    return grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check})


def main(address, name, sick=False):
    methods = {
        "Who": grpc.unary_unary_rpc_method_handler(lambda request, context: name.encode()),
        "Count": grpc.unary_stream_rpc_method_handler(count),
        "Total": grpc.stream_unary_rpc_method_handler(total),
        "Echo": grpc.stream_stream_rpc_method_handler(lambda requests, context: requests),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
    }
    handler = grpc.method_handlers_generic_handler(SERVICE, methods)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), handlers=[handler, health(sick)], options=UNLIMITED)
    if server.add_insecure_port(address) == 0:
        sys.exit(f"{address} is taken")
    server.start()
    print("serving", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], "sick" in sys.argv[3:])
