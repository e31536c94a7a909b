"""Calls every method of grpc_server.py once and checks what comes back; ends with 0 if all is as it should be.

usage: grpc_calls.py HOST:PORT NAME
"""

import sys

import grpc

SERVICE = "/weir.test.Names/"
TIMEOUT_S = 60
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
# Larger than any window or buffer on the way.
LARGE = b"x" * (4 << 20)


def check(what, seen, wanted):
    if seen != wanted:
        sys.exit(f"{what}: {str(seen)[:200]} instead of {str(wanted)[:200]}")


def unary(channel, name):
    check("Who", channel.unary_unary(SERVICE + "Who")(b"", timeout=TIMEOUT_S, wait_for_ready=True), name.encode())


def streams(channel):
    numbers = list(channel.unary_stream(SERVICE + "Count")(b"1000", timeout=TIMEOUT_S))
    check("Count", numbers, [str(number).encode() for number in range(1000)])
    total = channel.stream_unary(SERVICE + "Total")(iter([LARGE, LARGE, b"1"]), timeout=TIMEOUT_S)
    check("Total", total, str(2 * len(LARGE) + 1).encode())
    echoed = list(channel.stream_stream(SERVICE + "Echo")(iter([b"a", LARGE, b""]), timeout=TIMEOUT_S))
    check("Echo", echoed, [b"a", LARGE, b""])


def failure(channel):
    try:
        channel.unary_unary(SERVICE + "Fail")(b"", timeout=TIMEOUT_S)
        sys.exit("Fail: it succeeded")
    except grpc.RpcError as error:
        check("Fail's status", error.code(), grpc.StatusCode.NOT_FOUND)
        check("Fail's message", error.details(), "no such thing: 漏")
        check("Fail's trailers", dict(error.trailing_metadata()).get("reason"), "asked-for")


def main(target, name):
    with grpc.insecure_channel(target, options=UNLIMITED) as channel:
        unary(channel, name)
        streams(channel)
        failure(channel)
    print("all as expected", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
