"""Trains a predictor of attention on stored maps of Chat-Scene: the program `predictor-of-maps` of `mllm train`."""

from __future__ import annotations

from fastsam3d.errors import UserError
from fastsam3d.evaluation.language_models.chat_scene.loading import require
from fastsam3d.mllm.predictor.network import UNUSED, AttentionPredictor, PredictorConfig
from fastsam3d.training.predictor.chat_scene.batches import batches_of_maps, load_embeddings, maps_with_questions
from fastsam3d.training.predictor.chat_scene.options import MapsPredictorOptions
from fastsam3d.training.predictor.training import train

LANGUAGE_MODEL = "language model"
"""Note in the file of a predictor: identity of the model that it was trained for."""


def train_on_maps(options: MapsPredictorOptions) -> AttentionPredictor:
    """Trains a predictor, or goes on with an interrupted run.

    Raises:
        UserError: an option is missing or impossible, or the maps are of another model or other questions.
    """
    require(options, "mllm train predictor-of-maps")
    if options.width < 8 or options.width % 4 or options.batch < 1:
        raise UserError(f"width is {options.width} and batch {options.batch}: give a multiple of 4 from 8 on, and 1 on")
    model, identity = load_embeddings(options)
    maps, data = maps_with_questions(options.maps, identity, options, options.attributes)
    with_boxes = options.boxes != UNUSED
    held_out = None
    if options.held_out is not None:
        others = maps_with_questions(
            options.held_out, identity, options, options.held_out_attributes, features=data.features
        )
        if others[0].rows != maps.rows:
            raise UserError(
                f"maps are of the rows {maps.rows!r} and held_out of {others[0].rows!r}: make both of the same rows"
            )
        held_out = batches_of_maps(model, others[1], others[0], options.batch, with_boxes)
    width = options.width
    config = PredictorConfig(
        width=width,
        text_feed_forward=2 * width,
        feed_forward=5 * width // 2,
        matching=width // 2,
        boxes=options.boxes,
        rows=maps.rows,
    )
    batches = batches_of_maps(model, data, maps, options.batch, with_boxes)
    return train(options, batches, held_out, config, {LANGUAGE_MODEL: identity})
