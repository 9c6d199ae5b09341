"""A few lines of every format, as their publishers write them; all numbers are made up."""

from __future__ import annotations

import json

NORMALISED = (
    "arrival_s,input_tokens,output_tokens,session_id,prefix_tokens,think_time_s,api_time_s,model,block_ids\n"
    "0,1500,5,a,0,0,1,small,0-2\n1.5,1536,6,b,0,,,large,0-1 3\n2,600,1,a,512,1,2,small,\n30.25,3000,1,,,,,,4 6-9\n"
)
AZURE_2023 = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n2023-11-16 18:16:00.0000000,879,55\n"
)
AZURE_2024 = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 00:00:00+00:00,2399,6\n2024-05-10 00:00:01.5+00:00,0,15\n"
)
AZURE_2025 = (
    "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n"
    "2024-10-15 00:00:00.10,2,3100,40\n2024-10-15 00:00:00.60,0,310,41\n"
)
BURSTGPT = (
    "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,1087,230,1317,Conversation log\n118,GPT-4,417,0,417,API log\n"
)
BURSTGPT_3 = (
    "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "100.0,17-ca,43,GPT-4,906,446,1352,Conversation log\n161.0,,2,ChatGPT,36,29,65,API log\n"
    "192.0,17-ca,8,GPT-4,1779,123,1902,Conversation log\n"
)
MOONCAKE = (
    '{"timestamp": 0, "input_length": 1758, "output_length": 500, "hash_ids": [0, 1, 2, 3]}\n'
    '{"timestamp": 0, "input_length": 1536, "output_length": 490, "hash_ids": [0, 4, 5]}\n'
    '{"timestamp": 3000, "input_length": 700, "output_length": 3, "hash_ids": [0, 6]}\n'
)
GATEWAY = (
    '{"arrival_unix_s": 1700000004.5, "model": "llama-3.1-8b", "prompt_tokens": 90, "output_tokens": 7, "session": '
    '"9f2c", "ttft_s": 0.2, "e2e_s": 1.5, "status": "completed"}\n'
    '{"arrival_unix_s": 1700000001.0, "model": "llama-3.1-8b", "prompt_tokens": 40, "output_tokens": 7, "session": '
    '"9f2c", "ttft_s": 0.2, "e2e_s": 2.0, "status": "completed"}\n'
    '{"arrival_unix_s": 1700000002.0, "model": "llama-3.1-70b", "prompt_tokens": 10, "output_tokens": 0, "session": '
    'null, "ttft_s": null, "e2e_s": null, "status": "shed"}\n'
)
VLLM_RUN = {
    "date": "20250101-000000",
    "model_id": "meta-llama/Llama-3.1-8B",
    "request_rate": 2.0,
    "max_concurrency": None,
    "duration": 3.0,
    "completed": 3,
    "total_input_tokens": 60,
    "total_output_tokens": 6,
    "request_throughput": 1.0,
    "input_lens": [10, 20, 30],
    "output_lens": [1, 2, 3],
    "ttfts": [0.1, 0.1, 0.1],
    "itls": [[], [0.01], [0.01, 0.02]],
    "start_times": [105.0, 103.5, 106.0],
    "generated_texts": ["a", 'quoted " text', "c\n"],
    "errors": ["", "", ""],
}
VLLM = json.dumps(VLLM_RUN) + "\n"
SGLANG_RUN = {
    "backend": "sglang",
    "dataset_name": "random",
    "request_rate": 4.0,
    "max_concurrency": None,
    "sharegpt_output_len": None,
    "duration": 2.0,
    "completed": 4,
    "total_input": 100,
    "total_output": 10,
    "request_throughput": 2.0,
    "input_lens": [10, 20, 30, 40],
    "output_lens": [1, 2, 3, 4],
    "ttfts": [0.1, 0.1, 0.1, 0.1],
    "generated_texts": ["a", "b", "c", "d"],
    "errors": ["", "", "", ""],
}
SGLANG = json.dumps(SGLANG_RUN) + "\n"
SERVEGEN = (
    "window_start_s,rate_rps,active_clients,mean_client_iat_cv,top_client_share,mean_input_tokens,mean_output_tokens,"
    "length_coverage\n"
    "0,0.5,4,2.118,0.41,355.4,292.5,0.675\n600,0.25,3,1.492,0.521,,285.5,0.876\n1200,0.5,1,,,351.7,291,0.89\n"
)
SAMPLES = {
    "normalised": NORMALISED,
    "Azure 2023": AZURE_2023,
    "Azure 2024": AZURE_2024,
    "Azure 2025": AZURE_2025,
    "BurstGPT": BURSTGPT,
    "BurstGPT 3": BURSTGPT_3,
    "Mooncake": MOONCAKE,
    "gateway log": GATEWAY,
    "vLLM": VLLM,
    "SGLang": SGLANG,
    "ServeGen": SERVEGEN,
}
