"""The digest that recognises a repeated request, without its secrets."""

from shared.http.idempotency import request_digest


def _digest(body: bytes, path: str = "/v1/tune", query: str = "") -> bytes:
    return request_digest(path, query, body)


def test_formatting_and_order_of_keys_do_not_matter() -> None:
    assert _digest(b'{"a": 1, "b": [2]}') == _digest(b'{"b":[2],"a":1}')


def test_path_query_and_body_matter() -> None:
    requests = [
        _digest(b'{"a": 1}'),
        _digest(b'{"a": 2}'),
        _digest(b'{"a": 1}', path="/v1/tune/tune_1/cancel"),
        _digest(b'{"a": 1}', query="whatif=true"),
        _digest(b""),
        _digest(b"not json"),
    ]

    assert len(set(requests)) == len(requests)


def test_a_secret_at_any_depth_does_not_change_the_digest() -> None:
    bare = _digest(b'{"a": [{"b": 1}]}')

    assert _digest(b'{"a": [{"b": 1, "hf_token_secret": "hf_x"}], "hf_token_secret": "hf_y"}') == bare


def test_a_body_that_is_nested_too_deeply_to_be_read_is_hashed_unchanged() -> None:
    deep = b"[" * 100_000

    assert _digest(deep) != _digest(deep + b"[")
