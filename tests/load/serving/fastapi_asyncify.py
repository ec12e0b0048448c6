"""What the server is compared with: FastAPI and `dspy.asyncify`, put together as DSPy's documentation does.

Runs in a virtual environment of its own.
"""

from __future__ import annotations

import os
from typing import Any, Literal

import dspy
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from tests.load.serving.modules import Agent, Ask, AskInThread, ThreeSteps

app = FastAPI()
lm = dspy.LM("openai/gpt-4o-mini", api_base=os.environ["SERVING_PROVIDER"], api_key="benchmark", cache=False)
dspy.configure(lm=lm, async_max_workers=256)
programs = {
    "predict": dspy.asyncify(Ask()),
    "synchronous": dspy.asyncify(AskInThread()),
    "three_steps": dspy.asyncify(ThreeSteps()),
    "react": dspy.asyncify(Agent()),
}


class Question(BaseModel):
    """The body of a request."""

    question: str


@app.post("/{program}")
async def run(program: Literal["predict", "synchronous", "three_steps", "react"], question: Question) -> dict[str, Any]:
    """Run the program."""
    try:
        result = await programs[program](question=question.question)
        return {"status": "success", "data": result.toDict()}
    except Exception as error:
        raise HTTPException(status_code=500, detail=str(error)) from error
