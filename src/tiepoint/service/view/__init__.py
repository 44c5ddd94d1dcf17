"""The page of `tiepoint view`: what it shows, its tiles, and its routes.

`inputs` turns arguments into a `Session`, which holds images and pairs. `pixels` cuts tiles,
`results` gives keypoints and registrations, `payload` packs them for the page, and `routes` is the
`APIRouter`. `page/` is built from `web/`.
"""
