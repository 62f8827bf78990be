"""Readers that do what hostile files make readers do; run in a child by test_isolated.py. They do without torch."""

import os
import signal
import socket
import subprocess
import sys
import time

from meshwright.errors import InputError


def eat_memory(result, progress):
    taken = []
    while True:
        taken.append(bytearray(os.urandom(1) * (16 << 20)))


def hang(result, progress):
    progress("views", 0.5, "0.png")
    time.sleep(600)


def hang_deaf(result, progress):
    """As native code that nothing interrupts but SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    time.sleep(600)


def crash(result, progress, number):
    os.kill(os.getpid(), number)
    time.sleep(600)


def leave(result, progress):
    os._exit(0)


def start_a_program(result, progress):
    subprocess.run(["touch", "pwned"], check=False)


def connect(result, progress):
    socket.create_connection(("127.0.0.1", 9), timeout=1)


def fork(result, progress):
    if os.fork() == 0:
        time.sleep(600)


def refuse(result, progress):
    raise InputError("a.png: is not a picture")


def break_down(result, progress):
    raise ZeroDivisionError("a fault of ours")


def talk(result, progress):
    """Messages that nobody should send: no JSON, no end of the line."""
    sys.__stdout__.flush()
    for handle in range(3, 20):
        try:
            while True:
                os.write(handle, b"x" * 65536)
        except OSError:
            continue


def write_something(result, progress, content):
    result.write(bytes.fromhex(content))


def write(result, progress, content):
    for number in range(11):
        progress("views", number / 10, f"{number}.png")
    result.write(content.encode())
