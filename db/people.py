"""What is said to the database about who works on what; one project and one person until teams come."""

from sqlalchemy.orm import Session

from db.models import DEFAULT_PERSON, DEFAULT_PROJECT, Person, Project


def here(session: Session) -> tuple[str, str]:
    """(project, person) by name."""
    project = session.get_one(Project, DEFAULT_PROJECT)
    return project.name, session.get_one(Person, DEFAULT_PERSON).name
