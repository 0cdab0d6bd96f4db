"""Chat-Scene, a language model that is asked about scenes of numbered objects: its files, its prompt, its answers."""

from fastsam3d.mllm.chat_scene.features import FeatureFiles, Scene, read_features
from fastsam3d.mllm.chat_scene.generation import GENERATION
from fastsam3d.mllm.chat_scene.loading import load_chat_scene
from fastsam3d.mllm.chat_scene.maps import maps_of_questions
from fastsam3d.mllm.chat_scene.model import ChatInputs, ChatScene
from fastsam3d.mllm.chat_scene.prompts import object_order
from fastsam3d.mllm.chat_scene.question_data import QuestionData, read_question_data
from fastsam3d.mllm.chat_scene.questions import answer_questions

__all__ = [
    "GENERATION",
    "ChatInputs",
    "ChatScene",
    "FeatureFiles",
    "QuestionData",
    "Scene",
    "answer_questions",
    "load_chat_scene",
    "maps_of_questions",
    "object_order",
    "read_features",
    "read_question_data",
]
