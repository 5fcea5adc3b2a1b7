"""A gRPC server (`serve`: prints its port) and a client (`call ADDRESS`) with generic handlers: bytes in, bytes out."""

import sys
import time
from concurrent import futures

import grpc


def unary(request, context):
    metadata = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-initial", metadata.get("x-said", "")),))
    context.set_trailing_metadata((("x-trailing", "t"), ("x-binary-bin", b"\x00\xff")))
    if request == b"fail":
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as asked: ü")
    if request == b"sleep":
        time.sleep(5)
    return request


def down(request, context):
    for i in range(100):
        yield b"%d" % i


def up(requests, context):
    return b"%d" % sum(len(request) for request in requests)


def both(requests, context):
    for request in requests:
        yield request


def serve():
    server = grpc.server(futures.ThreadPoolExecutor(16))
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Down": grpc.unary_stream_rpc_method_handler(down),
        "Up": grpc.stream_unary_rpc_method_handler(up),
        "Both": grpc.stream_stream_rpc_method_handler(both),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", handlers),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    server.wait_for_termination()


def call(address):
    channel = grpc.insecure_channel(address)
    ask = channel.unary_unary("/t.T/Unary")
    answer, seen = ask.with_call(b"hello", metadata=(("x-said", "this"),), timeout=10)
    assert answer == b"hello"
    assert dict(seen.initial_metadata())["x-initial"] == "this"
    trailing = dict(seen.trailing_metadata())
    assert (trailing["x-trailing"], trailing["x-binary-bin"]) == ("t", b"\x00\xff"), trailing
    assert ask(b"x" * 3_000_000, timeout=20) == b"x" * 3_000_000
    try:
        ask(b"fail", timeout=10)
        raise AssertionError("it must fail")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
        assert error.details() == "as asked: ü", error
    begun = time.monotonic()
    try:
        ask(b"sleep", timeout=0.5)
        raise AssertionError("it must be late")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
    assert time.monotonic() - begun < 2
    try:
        channel.unary_unary("/t.T/Nothing")(b"", timeout=10)
        raise AssertionError("there is no such method")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error
    assert list(channel.unary_stream("/t.T/Down")(b"", timeout=10)) == [b"%d" % i for i in range(100)]
    assert channel.stream_unary("/t.T/Up")((b"x" * 1000 for _ in range(500)), timeout=20) == b"500000"

    # Each message is answered before the next is sent.
    answered = []

    def turns():
        for i in range(20):
            while len(answered) < i:
                time.sleep(0.001)
            yield b"%d" % i

    for message in channel.stream_stream("/t.T/Both")(turns(), timeout=20):
        answered.append(message)
    assert answered == [b"%d" % i for i in range(20)], answered
    print("fine")


if __name__ == "__main__":
    serve() if sys.argv[1] == "serve" else call(sys.argv[2])
