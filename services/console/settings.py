"""Settings of the console."""

from pydantic import Field, HttpUrl

from shared.settings import ProcessSettings


class ConsoleSettings(ProcessSettings):
    """Where the console finds the other processes. It uses no database, broker or store, so it gets no credentials of them."""

    upload_url: str = Field(default="http://127.0.0.1:8001", description="The upload service, as the console reaches it.")
    scheduler_url: str = Field(default="http://127.0.0.1:8002", description="The scheduler, as the console reaches it.")
    inference_url: str = Field(default="http://127.0.0.1:8003", description="The image API, as the console reaches it.")
    terms_url: HttpUrl | None = Field(
        default=None, description="Terms of use for uploads; the start page and the API's description link to them."
    )
    trainer_url: str | None = Field(default=None, description="A trainer's probes; its state is shown on the start page.")
    inference_worker_url: str | None = Field(
        default=None, description="An image worker's probes; its state is shown on the start page."
    )
