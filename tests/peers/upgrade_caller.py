"""Calls slow_server.py and grpc_server.py in many ways at once until it is told to stop (SIGTERM): short requests, requests
with bodies, one that takes SECONDS, and a gRPC stream that lasts as long. Ends with 0 if none failed.

usage: upgrade_caller.py HTTP_HOST:PORT GRPC_HOST:PORT SECONDS
"""

import http.client
import signal
import sys
import threading
import time

import grpc

ECHO = "/weir.test.Names/Echo"
# Far above what anything takes here.
TIMEOUT_S = 120
BODY = b"x" * 100_000
PAUSE_S = 0.02

stop = threading.Event()
failures = []
counts = {}
begun = {}


def told(who):
    counts[who] = counts.get(who, 0) + 1
    begun[who].set()


def request(connection, method, path, body, wanted):
    connection.request(method, path, body=body, headers={"Host": "slow"})
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 200 or text != wanted:
        raise RuntimeError(f"{answer.status} {text[:100]}")


def steady(who, target, method, body, wanted):
    connection = http.client.HTTPConnection(target, timeout=TIMEOUT_S)
    while not stop.is_set():
        request(connection, method, "/", body, wanted)
        told(who)
        time.sleep(PAUSE_S)


def slow(who, target, seconds):
    begun[who].set()
    request(http.client.HTTPConnection(target, timeout=TIMEOUT_S), "GET", f"/{seconds}", None, b"slow-east-1")
    told(who)


def stream(who, target, seconds):
    end = time.monotonic() + seconds

    def messages():
        while time.monotonic() < end:
            yield b"message"
            time.sleep(PAUSE_S)

    with grpc.insecure_channel(target) as channel:
        for message in channel.stream_stream(ECHO)(messages(), timeout=TIMEOUT_S):
            if message != b"message":
                raise RuntimeError(f"echoed {message[:100]}")
            told(who)


def guarded(call, who, *arguments):
    begun[who] = threading.Event()

    def run():
        try:
            call(who, *arguments)
        except Exception as error:
            failures.append(f"{who}: {type(error).__name__} {error}")
            begun[who].set()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def main(web, rpc, seconds):
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    threads = [guarded(steady, f"get {n}", web, "GET", None, b"slow-east-1") for n in range(4)]
    threads += [guarded(steady, f"post {n}", web, "POST", BODY, str(len(BODY)).encode()) for n in range(4)]
    threads += [guarded(slow, "slow", web, seconds), guarded(stream, "stream", rpc, seconds)]
    for event in begun.values():
        event.wait()
    print("begun", flush=True)
    for thread in threads:
        thread.join()
    print(f"answered {counts}, failed {failures}", flush=True)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
