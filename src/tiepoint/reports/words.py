"""The language of a report: English texts and their Korean ones."""

from __future__ import annotations

from typing import Literal, get_args

from tiepoint.checks import check_choice

Language = Literal["en", "ko"]

KOREAN = {
    "Report of tiepoint": "tiepoint 보고서",
    "Made by tiepoint {version} on {date}.": "tiepoint {version}, {date} 작성.",
    "Contents": "목차",
    "Sources that could not be read": "읽지 못한 입력",
    "source": "입력",
    "reason": "이유",
    "{count} more rows are left out.": "{count}개 행을 생략했습니다.",
    "Left out, because the page would be larger than {limit} MB.": (
        "페이지가 {limit} MB를 넘게 되어 생략했습니다."
    ),
    "{count} more sources are left out, because a report has at most {limit}.": (
        "보고서의 입력은 최대 {limit}개이므로 {count}개를 생략했습니다."
    ),
    "What was run": "실행 정보",
    "Settings": "설정",
    "Figures": "수치",
    "Failures": "실패",
    "file": "파일",
    "date": "날짜",
    "date of the file": "파일의 날짜",
    "version": "버전",
    "versions": "버전",
    "checkpoint": "체크포인트",
    "precision of the network": "정밀도",
    "precision": "매칭 정밀도",
    "engine": "엔진",
    "not recorded": "기록 없음",
    "yes": "예",
    "no": "아니요",
    # Registrations
    "Registrations": "정합",
    "registered": "정합됨",
    "not registered": "정합되지 않음",
    "{done} of {count} pairs registered": "{count}개 쌍 중 {done}개 정합",
    "Pairs": "쌍",
    "pair": "쌍",
    "verdict": "판정",
    "image A": "이미지 A",
    "image B": "이미지 B",
    "model": "모델",
    "matrix": "행렬",
    "keypoints": "키포인트",
    "matches": "매칭",
    "inliers": "인라이어",
    "median error, px": "중앙값 오차, px",
    "rms error, px": "RMS 오차, px",
    "standard deviation over the overlap, px": "겹치는 영역의 표준 편차, px",
    "coverage": "커버리지",
    "agreement": "일치도",
    "A aligned with B: A in red over B in cyan. Aligned parts are grey.": (
        "B에 정렬한 A: A는 빨간색, B는 청록색입니다. 맞게 정렬된 부분은 회색입니다."
    ),
    "Overlay of image A on image B": "이미지 B 위에 겹친 이미지 A",
    "Matches that fit the model: {count}, at most {limit} lines. A is on the left.": (
        "모델에 맞는 매칭 {count}개, 선은 최대 {limit}개. 왼쪽이 A입니다."
    ),
    "Images A and B side by side with lines between the inliers": (
        "인라이어를 선으로 이은 이미지 A와 B"
    ),
    "Residuals of the inliers on image B, {zoom} times as long as they are.": (
        "이미지 B 위의 인라이어 잔차, {zoom}배로 확대."
    ),
    "Arrows from the predicted to the matched position of each inlier": (
        "인라이어마다 예측 위치에서 매치 위치로 향하는 화살표"
    ),
    "Pictures of {count} more pairs are left out to keep the file small.": (
        "파일 크기를 줄이기 위해 {count}개 쌍의 그림을 생략했습니다."
    ),
    "The file has no matched points; `tiepoint register --json --points` adds them.": (
        "파일에 매칭 좌표가 없습니다. `tiepoint register --json --points`로 추가할 수 있습니다."
    ),
    "No pictures": "그림 없음",
    # Comparisons
    "Comparison of methods": "방법 비교",
    "Methods": "방법",
    "method": "방법",
    "failed": "실패",
    "from the others, px": "다른 방법과의 거리, px",
    "consensus": "합의",
    "detection, ms": "검출, ms",
    "matching, ms": "매칭, ms",
    "fit, ms": "추정, ms",
    "{count} methods, consensus of {agreeing}": "방법 {count}개, 합의 {agreeing}개",
    "CPU threads": "CPU 스레드",
    # Evaluations
    "Evaluation": "평가",
    "set": "세트",
    "pairs": "쌍",
    "points": "점",
    "kind": "종류",
    "profile": "프로토콜",
    "Means over pairs, with 95 % intervals": "쌍에 대한 평균과 95% 신뢰 구간",
    "Share of {count} pairs within an error": "오차 이내인 쌍의 비율 ({count}쌍)",
    "error, {unit}": "오차, {unit}",
    "px": "px",
    "degrees": "도",
    "Largest errors of {method}": "{method}의 가장 큰 오차",
    "{pairs} pairs, {methods} methods, failures: {failures}": (
        "{pairs}쌍, 방법 {methods}개, 실패 {failures}개"
    ),
    "name": "이름",
    "within": "이내",
    "repeatability": "반복성",
    "correct": "정답",
    "AUC": "AUC",
    "matching score": "매칭 점수",
    "localisation, px": "위치 오차, px",
    "median, ms": "중앙값, ms",
    "10 %, ms": "10%, ms",
    "90 %, ms": "90%, ms",
    "times the first": "첫 방법 대비 배수",
    # Runs
    "Training run": "학습",
    "finished": "완료",
    "not finished": "미완료",
    "state unknown": "상태 불명",
    "steps": "스텝",
    "images": "이미지",
    "hours": "시간(h)",
    "skipped steps": "건너뛴 스텝",
    "seed": "시드",
    "preset": "프리셋",
    "origin": "초기 가중치",
    "commit": "커밋",
    "machine": "장비",
    "note": "메모",
    "step": "스텝",
    "step {step}, {records} records": "스텝 {step}, 기록 {records}개",
    "Held-out pairs at step {step}": "스텝 {step}의 검증 쌍",
    "The run has no log yet.": "아직 로그가 없습니다.",
    "within 3 px": "3 px 이내",
    "detector loss (nats per cell)": "검출기 손실 (셀당 nat)",
    "descriptor loss (nats)": "디스크립터 손실 (nat)",
    "match accuracy, cosines": "매칭 정확도, 코사인",
    "repeatability loss": "반복성 손실",
    "images per second, waiting x 100": "초당 이미지 수, 대기 비율 x 100",
    "held-out pairs within 3 px, repeatability": "검증 쌍: 3 px 이내, 반복성",
    "matching loss (nats), all layers and last layer": "매칭 손실 (nat): 모든 층, 마지막 층",
    "matches: precision, recall": "매칭: 정밀도, 재현율",
    "held-out loss of the last layer": "마지막 층의 검증 손실",
    "held-out precision, recall": "검증 정밀도, 재현율",
    "held-out homographies, poses": "검증 호모그래피, 자세",
    # Stores
    "Store of features": "특징 저장소",
    "complete": "완료",
    "with failures": "실패 있음",
    "shards": "샤드",
    "images with features": "특징이 있는 이미지",
    "images that failed": "실패한 이미지",
    "keypoints per image: median, 10 and 90 %": "이미지당 키포인트: 중앙값, 10%와 90%",
    "size, MB": "크기, MB",
    "time, s": "시간, s",
    "first shard started": "첫 샤드의 시작",
    "format": "형식",
    "tried again": "재시도",
    "at the next run": "다음 실행",
    "only with --retry-failed": "--retry-failed로만",
    "image": "이미지",
    "{images} images, failures: {failures}": "이미지 {images}개, 실패 {failures}개",
    "Images by number of keypoints": "키포인트 수별 이미지",
    "share of images with at most N keypoints": "키포인트가 N개 이하인 이미지의 비율",
}
"""English text of the package -> Korean."""


class Words:
    """Translates the texts of a report.

    Args:
        language: "en" or "ko"; ConfigError for another one.
    """

    def __init__(self, language: Language = "en") -> None:
        check_choice("language", language, get_args(Language))
        self.language = language

    def __call__(self, english: str, **values: object) -> str:
        """A text in the report's language, with values in its braces."""
        text = english if self.language == "en" else KOREAN[english]
        return text.format(**values) if values else text
