"""Encrypted and signed-in connections to PostgreSQL, to the store and to Kafka."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from subprocess import DEVNULL, Popen, run

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy import make_url, text

import migrations
from deploy.local.parts import kafka
from deploy.local.ports import is_free
from shared.blobs.store import Blobs
from shared.database.listen import Listener
from shared.database.sessions import Database, tls_of
from shared.errors import UnavailableError
from shared.messaging import topics
from shared.settings import ServiceSettings
from tests.support.tls_front import make_certificate, tls_front
from tests.support.waiting import eventually

Make = Callable[..., ServiceSettings]


@pytest.fixture
async def secured(database_url: str, make_settings: Make, tmp_path: Path) -> AsyncIterator[ServiceSettings]:
    """Settings of a database that speaks TLS alone, whose password is a setting of its own."""
    ca, pair = make_certificate(tmp_path)
    url = make_url(database_url)
    assert url.host is not None
    async with tls_front(pair, (url.host, url.port or 5432), postgres=True) as port:
        bare = url.set(host="localhost", port=port, password=None).render_as_string()
        yield make_settings(
            ServiceSettings,
            database_password=SecretStr(url.password or ""),
            database_url=SecretStr(bare),
            database_tls="verify-full",
            database_ca_file=ca,
        )


async def test_sessions_notifications_and_migrations_reach_a_database_by_tls(secured: ServiceSettings) -> None:
    database = Database.from_settings(secured, application_name="test")
    async with database.begin() as session:
        assert await session.scalar(text("SELECT 1")) == 1

    heard: list[str | None] = []
    listener = Listener(secured, "some", heard.append)
    listening = asyncio.create_task(listener.run())
    await asyncio.wait_for(listener.listening.wait(), 10)
    listening.cancel()
    await migrations.upgrade(secured.database_url.get_secret_value(), tls_of(secured))

    await database.close()
    assert heard == [None]


@pytest.mark.parametrize(
    ("changed", "reached"),
    [
        ({"database_ca_file": None}, False),
        ({"database_tls": "require", "database_ca_file": None}, True),
        ({"database_url": "127.0.0.1"}, False),
    ],
    ids=["another CA", "require checks no certificate", "another name"],
)
async def test_a_certificate_is_checked_as_the_setting_says(
    secured: ServiceSettings, changed: dict[str, object], reached: bool
) -> None:
    if host := changed.pop("database_url", None):
        url = make_url(secured.database_url.get_secret_value()).set(host=str(host))
        changed["database_url"] = SecretStr(url.render_as_string(hide_password=False))
    database = Database.from_settings(secured.model_copy(update=changed), application_name="test")
    ping = database.ping()
    if reached:
        await ping
    else:
        with pytest.raises((OSError, asyncpg.PostgresError)):
            await ping
    await database.close()


async def test_a_store_is_reached_by_https_with_the_ca_of_the_setting(blobs: Blobs, make_settings: Make, tmp_path: Path) -> None:
    ca, pair = make_certificate(tmp_path)
    host, _, port = blobs.endpoint.removeprefix("http://").partition(":")
    async with tls_front(pair, (host, int(port))) as front:
        settings = make_settings(ServiceSettings, s3_endpoint=f"https://localhost:{front}", s3_ca_file=ca, s3_bucket=blobs.bucket)
        trusted, others = (Blobs.from_settings(found) for found in (settings, settings.model_copy(update={"s3_ca_file": None})))
        await trusted.ping()
        with pytest.raises(UnavailableError):
            await others.ping()
        await trusted.close()
        await others.close()


@contextlib.contextmanager
def _broker(folder: Path, pair: Path, *, password: str) -> Iterator[int]:
    """Run a broker of one node that takes clients by TLS with a user name and a password only."""
    ports = [port for port in range(23100, 23900) if is_free(port)][:2]
    config = folder / "kafka.properties"
    pem = pair.read_text().strip().replace("\n", "\\n")
    key, certificate = pem.split("-----BEGIN CERTIFICATE-----")
    plain = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    users = f'user_tunesmith="{password}" username="tunesmith" password="{password}"'
    config.write_text(
        "\n".join(
            [
                "process.roles=broker,controller",
                "node.id=1",
                f"controller.quorum.voters=1@localhost:{ports[1]}",
                f"listeners=SASL_SSL://localhost:{ports[0]},CONTROLLER://localhost:{ports[1]}",
                f"advertised.listeners=SASL_SSL://localhost:{ports[0]}",
                "controller.listener.names=CONTROLLER",
                "inter.broker.listener.name=SASL_SSL",
                "listener.security.protocol.map=SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT",
                "sasl.enabled.mechanisms=PLAIN",
                "sasl.mechanism.inter.broker.protocol=PLAIN",
                f"listener.name.sasl_ssl.plain.sasl.jaas.config={plain} {users};",
                "ssl.keystore.type=PEM",
                f"ssl.keystore.key={key}",
                f"ssl.keystore.certificate.chain=-----BEGIN CERTIFICATE-----{certificate}",
                "ssl.truststore.type=PEM",
                f"ssl.truststore.certificates={(folder / 'ca.pem').read_text().strip().replace(chr(10), chr(92) + 'n')}",
                f"log.dirs={folder / 'kafka'}",
                "offsets.topic.replication.factor=1",
            ]
        )
    )
    java = kafka._java()
    format_ = ["kafka.tools.StorageTool", "format", "--cluster-id", kafka._CLUSTER_ID, "--config", str(config)]
    run([*java, *format_], check=True, capture_output=True)
    with (folder / "kafka.log").open("wb") as log:
        broker = Popen([*java, "kafka.Kafka", str(config)], stdin=DEVNULL, stdout=log, stderr=log)
    try:
        yield ports[0]
    finally:
        broker.kill()
        broker.wait()


async def test_topics_are_made_on_a_broker_with_tls_and_a_password(make_settings: Make, tmp_path: Path) -> None:
    ca, pair = make_certificate(tmp_path)
    password = "a-password"
    with _broker(tmp_path, pair, password=password) as port:
        settings = make_settings(
            ServiceSettings,
            kafka_bootstrap_servers=f"localhost:{port}",
            kafka_tls=True,
            kafka_ca_file=ca,
            kafka_sasl_mechanism="PLAIN",
            kafka_sasl_username="tunesmith",
            kafka_sasl_password=SecretStr(password),
        )

        async def made() -> list[str] | None:
            with contextlib.suppress(UnavailableError):
                return await topics.ensure_topics(settings)
            return None

        assert set(await eventually(made)) == topics.NAMES
        wrong = settings.model_copy(update={"kafka_sasl_password": SecretStr("another")})
        with pytest.raises(UnavailableError, match="does not answer"):
            await topics.ensure_topics(wrong)
