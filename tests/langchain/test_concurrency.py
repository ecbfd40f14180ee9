"""One runnable, asked by threads and by an event loop at the same time, over the embedded index."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from langchain_openrag import OpenRAGRunnable
from openrag_core import OpenRAG

ANSWERS = {
    "Who opened the Velora Bridge?": "Mayor Ana Tolvik",
    "Who was the last keeper of the Keth Lighthouse?": "Marta Venn",
    "How much water does the water tower hold?": "1,200 cubic metres",
}
ASKED = [list(ANSWERS)[n % 3] for n in range(50)]


async def test_ten_threads_and_fifty_tasks_get_their_own_answers(bundled_rag: OpenRAG) -> None:
    runnable = OpenRAGRunnable(rag=bundled_rag, top_k=1)

    def stream(question: str) -> str:
        return "".join(runnable.pick("answer").stream(question))

    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(10) as threads:
        in_threads = [loop.run_in_executor(threads, stream, one) for one in ASKED[:10]]
        in_tasks = [asyncio.create_task(runnable.ainvoke(one)) for one in ASKED]
        in_tasks[7].cancel()  # of which the others know nothing
        streamed = await asyncio.gather(*in_threads)
        outputs = await asyncio.gather(*in_tasks, return_exceptions=True)
    assert streamed == [ANSWERS[question] for question in ASKED[:10]]
    assert isinstance(outputs.pop(7), asyncio.CancelledError)
    answers = [output["answer"] for output in outputs if isinstance(output, dict)]
    assert answers == [ANSWERS[question] for n, question in enumerate(ASKED) if n != 7]
