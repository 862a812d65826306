"""Settings of the console."""

from pydantic import Field, HttpUrl

from shared.settings import ServiceSettings


class ConsoleSettings(ServiceSettings):
    """The console reads the other services' descriptions and readiness by HTTP, inside the platform."""

    upload_url: str = Field(default="http://127.0.0.1:8001", description="The upload service, as the console reaches it.")
    scheduler_url: str = Field(default="http://127.0.0.1:8002", description="The scheduler, as the console reaches it.")
    inference_url: str = Field(default="http://127.0.0.1:8003", description="The image API, as the console reaches it.")
    terms_url: HttpUrl | None = Field(
        default=None, description="Terms of use that uploads are under; the pages and the API's description show the address."
    )
    trainer_url: str | None = Field(default=None, description="A trainer's probes, to show its state on the start page.")
    inference_worker_url: str | None = Field(
        default=None, description="An image worker's probes, to show its state on the start page."
    )
