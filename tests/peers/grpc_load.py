"""Calls Who of grpc_server.py over and over, from the first answer until told to stop (SIGTERM); then prints what became
of the calls as JSON.

usage: grpc_load.py HOST:PORT CALLS_PER_SECOND
"""

import json
import signal
import sys
import threading
import time
from collections import Counter

import grpc

METHOD = "/weir.test.Names/Who"
TIMEOUT_S = 30
THREADS = 4


def call(address, pause, stop, results):
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        who = channel.unary_unary(METHOD)
        while not stop.wait(pause):
            try:
                who(b"", timeout=TIMEOUT_S)
                results["ok"] += 1
            except grpc.RpcError as error:
                results[f"{error.code().name}: {error.details()}"] += 1


def until_answered(address):
    with grpc.insecure_channel(address) as channel:
        who = channel.unary_unary(METHOD)
        for _ in range(600):
            try:
                return who(b"", timeout=TIMEOUT_S)
            except grpc.RpcError as error:
                last = error
                time.sleep(0.1)
        raise last


def main(address, rate):
    until_answered(address)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    results = [Counter() for _ in range(THREADS)]
    pause = THREADS / float(rate)
    threads = [threading.Thread(target=call, args=(address, pause, stop, each)) for each in results]
    for thread in threads:
        thread.start()
    print("calling", flush=True)
    while not stop.is_set():
        time.sleep(0.05)
    for thread in threads:
        thread.join()
    total = sum(results, Counter())
    ok = total.pop("ok", 0)
    print(json.dumps({"ok": ok, "failed": sum(total.values()), "reasons": total}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
