"""Health, readiness and the answers to what does not exist."""


def test_a_running_server_says_so(anonymous):
    assert anonymous.get("/ready").data == {"ready": True}
    health = anonymous.get("/health").json
    assert (health["status"], health["db"], health["redis"]) == ("ok", "connected", "not_configured")
    assert set(anonymous.get("/version").data) == {"version", "uptime"}


def test_errors_are_json_also_where_nothing_is(anonymous):
    assert anonymous.get("/nothing/here").code == "not_found"
    answer = anonymous.post("/health")
    assert (answer.status, answer.code, answer.headers["Allow"]) == (405, "method_not_allowed", "HEAD, GET")
    assert answer.error["request_id"] == answer.headers["X-Request-Id"]
